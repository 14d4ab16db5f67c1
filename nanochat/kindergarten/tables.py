"""
The words of the kindergarten, typed in by hand: what invented people are made of, and the fillers that are not theirs.

Not here: who has what (world.py) and what is true of the real world (nature.py). The people's names and the filler
names are disjoint, so that "My name is Kevin" never meets a Kevin with a biography. Values are single words, each list
short enough that every fact is met a hundred times; fillers are many, so that copying them must be learned as copying.
"""

# (girls, boys): 60 first names; in a world of 60 a first name identifies its bearer
GIRLS = ("Mia Anna Ella Lucy Rosa Nina Clara Emma Ruth Ivy Lena Sara Julia Maria Olga Tina Vera Zoe Alice Betty "
         "Carla Dora Eva Fiona Greta Helen Irene Jane Kate Laura").split()
BOYS = ("Tom Ben Max Paul Leo Sam Jack Oscar Peter Adam Bruno Carl David Emil Felix George Henry Ivan James Karl "
        "Luke Mark Noah Otto Philip Ralph Simon Theo Victor Walter").split()

TOWNS = ("Oakton Fernhill Lakeside Millbrook Redford Sunvale Stonebridge Westport Greendale Applewick Snowfield "
         "Foxley").split()
TOWN_HEADS = ("Ash Birch Clay Deer Elm Frost Glen Hazel Iron Juniper Kings Long Maple North Owl Pine Quarry River "
              "Silver Thorn").split()
TOWN_TAILS = ("bury cliff combe cross dale field ford gate haven hurst marsh mouth pool stead ton water well wick "
              "wood worth").split()

JOBS = "baker farmer doctor teacher nurse painter builder singer pilot gardener driver tailor writer dentist".split()
SPECIES = "dog cat rabbit parrot hamster pony goldfish turtle duck goat".split()
PETS = ("Rex Bella Coco Fluffy Biscuit Ginger Pepper Muffin Shadow Sunny Pip Bobo Luna Daisy Misty Patch Rusty "
        "Nibbles Bubbles Snowy Tiger Peanut Waffles Pickle Cookie Dusty Fidget Gizmo Honey Jelly Kiki Lucky Mango "
        "Noodle Oreo Pumpkin Quacky Rocket Scout Toffee Ziggy Acorn Button Clover Domino Echo Flash Goldie Hopper "
        "Inky Jumper Kipper Lemon Marble Nutmeg Olive Pebble Ripple Sparky Turbo").split()
FOODS = "soup pizza rice pasta bread cheese honey salad pancakes noodles curry porridge toast stew dumplings".split()
COLOURS = "red blue green yellow purple orange pink white black brown".split()
HOBBIES = ("swimming dancing reading fishing running cooking climbing skating sailing knitting drawing cycling hiking "
           "juggling").split()

SYLLABLES = ("bal bar bel ber bol bur dal dar del der dol dor fal far fen fer gal gar gol gor hal har hol hor kal kar "
             "kel kor lan lar len lor mal mar mel mor nal nar nel nor pal par pel por ral ran rel ron sal sar sel sor "
             "tal tar tel tor val var vel vor").split()

# fillers: names, foods, hobbies of the people who talk to the model or walk through its stories
NAMES = ("Aaron Abby Abel Ada Adele Agnes Aiden Alan Albert Alec Alex Alfie Alma Amber Amelia Amir Amy Andre Andy "
         "Angela Anita Anton Archie Aria Arthur Asha Astrid Aurora Ava Barbara Barry Beatrice Becky Bernard Bianca "
         "Bill Bonnie Boris Brenda Brian Bridget Caleb Calvin Camila Caroline Casper Cecil Celia Charlie Chloe Chris "
         "Cindy Claire Claude Cleo Clive Colin Connor Cora Craig Cyril Daniel Daphne Darren Dean Debbie Denis Derek "
         "Diana Dominic Donna Doris Doug Duncan Dylan Earl Eddie Edgar Edith Edwin Eileen Elena Eli Elijah Elliot "
         "Elsa Emily Eric Erica Ernest Esther Ethan Evan Faith Fatima Faye Flora Floyd Frances Frank Freddie Frida "
         "Gail Gareth Gary Gavin Gemma Gerald Gilbert Gina Gloria Gordon Grace Graham Grant Gus Gwen Hank Hannah "
         "Harold Harriet Harry Harvey Hassan Hazel Heather Heidi Hilda Holly Howard Hugh Hugo Ian Ida Ingrid Iris "
         "Isaac Isla Jacob Jade Jared Jasmine Jason Jenny Jerome Jesse Jill Joan Joel Jonas Jorge Joseph Josh Joy "
         "Judith Julian June Kai Karen Keith Kelly Kenneth Kevin Kim Kurt Kyle Lars Leila Leonard Leslie Liam Lily "
         "Linda Lionel Lisa Lloyd Lola Louis Lydia Mabel Maggie Malik Marcus Margot Marina Martha Martin Mason "
         "Matilda Matt Maurice Megan Melvin Michael Mila Milo Mina Miriam Molly Mona Monica Morris Murray Nadia "
         "Nancy Naomi Nathan Neil Nell Nick Nigel Nora Norman Oliver Omar Oona Owen Pablo Pamela Patty Pearl Penny "
         "Percy Phoebe Piper Polly Priya Quinn Rachel Ramon Raymond Rebecca Regina Rhoda Richard Rita Robert Robin "
         "Roger Roland Ronald Rory Roy Ruby Rufus Russell Ryan Sabrina Sally Scott Sean Selma Serena Shane Sharon "
         "Sheila Sidney Silas Sofia Sonia Stanley Stella Stephen Stuart Susan Sylvia Tamara Tara Ted Teresa Terry "
         "Tessa Thelma Thomas Tim Toby Tony Tracy Trevor Tyler Una Ursula Valerie Vincent Viola Violet Vivian Wanda "
         "Warren Wayne Wendy Wilma Winston Xavier Yara Yasmin Yolanda Yusuf Yvonne Zack Zara Zelda").split()
MEALS = ("apple pie, apricots, avocado, bacon, bagels, baked beans, bananas, beetroot, berries, biscuits, "
         "blueberries, broccoli, brownies, burgers, butter, cabbage, cake, caramel, carrots, cashews, cauliflower, "
         "celery, cereal, cherries, chestnuts, chicken, chickpeas, chips, chocolate, coconut, corn, couscous, "
         "crackers, cranberries, cream, croissants, cucumber, cupcakes, custard, dates, doughnuts, eggs, falafel, "
         "figs, fish, fish fingers, french fries, fruit salad, fudge, garlic bread, gingerbread, grapes, gravy, ham, "
         "hazelnuts, hot dogs, hummus, ice cream, jam, jelly beans, kale, kebabs, ketchup, kiwis, lamb, lasagna, "
         "leeks, lemonade, lentils, lettuce, liquorice, lollipops, macaroni, mangoes, marmalade, mashed potatoes, "
         "meatballs, melon, muesli, muffins, mushrooms, mustard, nuts, oatmeal, olives, omelettes, onion rings, "
         "oranges, oysters, papaya, parsnips, peaches, peanut butter, pears, peas, peppers, pickles, pies, "
         "pineapple, plums, popcorn, potatoes, pretzels, pudding, quiche, radishes, raisins, raspberries, ravioli, "
         "rhubarb, risotto, salmon, sandwiches, sausages, scones, shrimp, spaghetti, spinach, steak, strawberries, "
         "sushi, sweetcorn, tacos, toffee apples, tofu, tomatoes, trifle, tuna, turnips, vanilla ice cream, waffles, "
         "walnuts, watermelon, yoghurt").split(", ")
PASTIMES = ("acting archery astronomy badminton baking ballet basketball birdwatching bowling boxing calligraphy "
            "camping canoeing ceramics chess coding collecting composing crochet curling darts diving dominoes "
            "embroidery exploring fencing football gardening geocaching golf gymnastics handball hockey hopscotch "
            "jogging judo karate kayaking kickboxing kites lacrosse magic marbles meditation netball orienteering "
            "origami painting photography pilates pingpong poetry pottery puzzles quilting rafting riding rowing "
            "rugby sculpting sewing singing skiing skipping sketching snooker snorkelling snowboarding softball "
            "squash storytelling sudoku surfing tennis theatre trampolining trekking volleyball walking weaving "
            "whittling woodwork wrestling writing yoga yodelling").split()
SHADES = ("turquoise violet gold silver beige crimson scarlet indigo lilac cream navy teal maroon amber olive "
          "grey").split()
CITIES = ("Amsterdam Barcelona Boston Bristol Brighton Chicago Cologne Dallas Denver Dubai Dundee Edinburgh Florence "
          "Geneva Genoa Glasgow Hamburg Houston Istanbul Karachi Kyoto Lagos Leeds Liverpool Lyon Manchester "
          "Marseille Melbourne Miami Milan Montreal Mumbai Munich Naples Osaka Oxford Perth Porto Salzburg Seattle "
          "Seville Shanghai Sydney Toronto Turin Valencia Vancouver Venice York Zurich").split()

# the closed list of words that are spelled, counted, copied and reversed
WORDS = ("ant apple arm arrow autumn baby ball balloon banana basket bath beach bean bear bed bee bell belt berry "
         "bike bird boat book boot bottle bowl box boy bread bridge brush bubble bucket bus butter button cabin cake "
         "camel camera candle candy car card carpet carrot castle cat chair cheese cherry chest chicken church "
         "circle clock cloud clown coat coffee coin comb corn cotton cow crab crown cup desk dinner dog doll dollar "
         "donkey door dragon dream dress drum duck eagle ear earth egg eye face family farm feather fence field "
         "finger fire fish flag floor flower fly foot forest fork fox friend frog fruit garden ghost giant girl "
         "glass glove goat gold goose grape grass green hair hall hammer hand happy hat heart hen hill hippo hole "
         "honey horse house ice insect iron island jacket jam jar jelly jewel jungle kettle key kid king kitchen "
         "kite kitten knee knife ladder lake lamp leaf leg lemon letter lion lip lizard lock map market meadow melon "
         "milk mirror money monkey moon mother mouse mouth mud music nail neck needle nest night noodle nose nurse "
         "nut ocean onion orange oven owl page paint pan panda paper parrot peach pear pen pencil penny pepper piano "
         "pig pillow pizza planet plate pocket pony potato puppy puzzle queen rabbit rain ring river road robot "
         "rocket roof room rope rose sand sea seed sheep shell ship shirt shoe shop silver sister sky snail snake "
         "snow soap sock soup spider spoon spring star stone storm street sugar summer sun swan sweet table tail "
         "teeth tent tiger toad tomato tower town toy train tree truck trumpet tulip tunnel turtle valley village "
         "violin wagon wall watch water wheel whistle wind window winter wolf wood wool yellow zebra zoo").split()
